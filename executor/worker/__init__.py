"""The worker: the process in which scripts run, and nothing else.

It serves one namespace for its life, answers each request of its one socket in order, and holds
no policy: deadlines, memory and what to do after a death are the supervisor's business.
"""
