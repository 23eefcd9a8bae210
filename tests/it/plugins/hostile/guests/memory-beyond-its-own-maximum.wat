;; Growth beyond the module's own maximum is refused with -1 and not counted: a second attempt within the limits succeeds.
;; module authorizer-plugin, ends: allow
(module
  (memory (export "memory") 1 3)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "roster:policy/authorizer@1.0.0#authorize")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (local $tries i32)
    (loop $again
      (if (i32.ne (memory.grow (i32.const 100)) (i32.const -1)) (then (unreachable)))
      (local.set $tries (i32.add (local.get $tries) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $tries) (i32.const 100))))
    (if (i32.ne (memory.grow (i32.const 2)) (i32.const 1)) (then (unreachable)))
    (i32.const 16)))
