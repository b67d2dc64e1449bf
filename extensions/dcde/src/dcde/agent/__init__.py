"""The agent: the small program at the site's end of a link.

It needs nothing but Python 3.9 and its standard library, because it is sent to login hosts that have nothing else.
The link builds one file out of this package, named by its content, and starts it there. The modules below `home` and
`main` are also used by the near end of the link, so that both ends share one session layer.

Nothing here may import the rest of `dcde`.
"""
