;; authorizer, ends: fuel
(table $t 15000 funcref)
;; body
(loop $again (table.fill $t (i32.const 0) (ref.null func) (i32.const 15000)) (br $again))
(unreachable)
