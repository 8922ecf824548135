"""The commands.

What is done here is done before any of them opens a file: the first one would get the number of a standard descriptor
that is closed (``2>&-``), and the messages of native code would be written into it.
"""

import os

for _number in range(3):
    try:
        os.fstat(_number)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets this number, the lowest that is free
