;; A hundred thousand roles that all point to the same 60,000 bytes: 6 GB when they are copied.
;; role-mapper, ends: output
;; body
(local $n i32)
(drop (memory.grow (i32.const 30)))
(memory.fill (i32.const 1024) (i32.const 97) (i32.const 60000))
(loop $again
  (i32.store (i32.add (i32.const 131072) (i32.shl (local.get $n) (i32.const 3))) (i32.const 1024))
  (i32.store (i32.add (i32.const 131076) (i32.shl (local.get $n) (i32.const 3))) (i32.const 60000))
  (local.set $n (i32.add (local.get $n) (i32.const 1)))
  (br_if $again (i32.lt_u (local.get $n) (i32.const 100000))))
(call $list (i32.const 131072) (i32.const 100000))
