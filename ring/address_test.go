package ring

import "unsafe"

// address returns the address of off-heap memory.
func address(mem []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&mem[0]))) }
