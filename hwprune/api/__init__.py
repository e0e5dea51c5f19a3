"""The verbs as functions: the only place where the stages are wired together.

One file per verb; each function has the name and the options of its command. Heavy imports stay inside
functions, so that the command line starts fast.
"""
