package xts

import "unsafe"

// aligned returns n bytes that start at a multiple of 64. Only the address is
// looked at; what becomes of it is slicing.
func aligned(n int) []byte {
	b := make([]byte, n+63)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & 63
	return b[skip : skip+uintptr(n)]
}
