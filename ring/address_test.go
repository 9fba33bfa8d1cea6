package ring

import "unsafe"

// address returns where off-heap memory is.
func address(mem []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&mem[0]))) }
