"""The head of a split model in a child process: tokens in and out, the last layers, sampling, HTTP."""
