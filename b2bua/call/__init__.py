"""Pure call logic: no pjsip, no threads, no clock, no I/O. Events go in, commands come out."""
