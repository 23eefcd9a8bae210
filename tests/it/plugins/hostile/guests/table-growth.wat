;; authorizer, ends: memory
(table $grows 1 funcref)
;; body
(loop $again (drop (table.grow $grows (ref.null func) (i32.const 1000))) (br $again)) (unreachable)
