package xts

import "unsafe"

// aligned returns n bytes that start at a multiple of 64. It uses the address
// only as a number.
func aligned(n int) []byte {
	b := make([]byte, n+63)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & 63
	return b[skip : skip+uintptr(n)]
}
