"""To whom a node lends memory for stages. Pure: a request, the claims it sees and the time in, a word out.

For one model at most one stage, for one leader, until the lease ends. Counterpart: `claims.py`.
"""
