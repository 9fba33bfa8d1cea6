package pages

import "unsafe"

// Slice returns the first n elements of memory of this package, as elements of a type. It panics if the memory is
// shorter.
//
// This is safe for a type without pointers into the Go heap, because the garbage collector does not look here; and for
// memory that starts at a multiple of 8 bytes from its first page, which every type of the language accepts.
func Slice[T any](mem []byte, n int) []T {
	mem = mem[:Size[T](n):len(mem)]
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mem))), n)
}

// Size returns the number of bytes of n elements of a type.
func Size[T any](n int) int {
	var t T
	return n * int(unsafe.Sizeof(t))
}
