;; authorizer, refused: plugin_start
(func $start (loop $again (drop (memory.grow (i32.const 1))) (br $again)))
(start $start)
;; body
(call $allow)
