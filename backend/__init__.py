"""Label Studio's face of the project: the server, the command line, the connection.

Importing it does nothing: no settings are read, no socket is opened, no model is loaded.
"""
