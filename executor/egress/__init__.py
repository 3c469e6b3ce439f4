"""The way out: the requests of scripts, performed by the supervisor's process, never by a worker.

A place is spoken to only when the Script's manifest and the operator of this executor both name
it. Names are resolved here, what they lead to is judged, and the connection goes to exactly that;
redirects are judged again. Nothing of this process goes along: no proxy, cookie, credential or
netrc of the environment. `client.Client` is the door; it knows nothing of workers and sessions.
"""
