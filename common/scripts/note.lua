#!lua
-- A line for people in the log of a task. T, id or '-', text. OK, GONE.
-- include lib
-- include lib_line
if call('EXISTS', task_key) == 0 then return 'GONE' end
log(sub(clock(), 1, -4), 'note', ARGV[2], 0, '- - -', '-', ARGV[3])
told()
return 'OK'
