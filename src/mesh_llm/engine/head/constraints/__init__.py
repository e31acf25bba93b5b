"""What an answer must look like: JSON of a schema, a grammar, the call of a tool."""
