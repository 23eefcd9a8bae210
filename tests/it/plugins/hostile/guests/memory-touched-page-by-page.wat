;; authorizer, ends: allow
;; body
(local $at i32)
(drop (memory.grow (i32.const 200)))
(local.set $at (i32.const 131072))
(loop $next
  (i32.store8 (local.get $at) (i32.const 7))
  (local.set $at (i32.add (local.get $at) (i32.const 4096)))
  (br_if $next (i32.lt_u (local.get $at) (i32.const 13000000))))
(call $allow)
