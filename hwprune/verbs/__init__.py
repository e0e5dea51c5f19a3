"""The verbs as functions: the only place where the stages are wired together.

One file per verb; each function has the name and the options of its command. torch is imported inside
functions only, so that help and checks of options answer fast.
"""
