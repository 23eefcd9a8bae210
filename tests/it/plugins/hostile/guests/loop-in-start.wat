;; authorizer, refused: plugin_start
(func $start (loop $again (br $again)))
(start $start)
;; body
(call $allow)
