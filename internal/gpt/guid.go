package gpt

import "fmt"

// A GUID has the bytes of its text from left to right. On disk, the first three groups are
// little-endian.
type GUID [16]byte

// guidAt returns the GUID at the start of b, as it is on disk.
func guidAt(b []byte) GUID {
	return GUID{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}

// String returns the GUID in lower case.
func (g GUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
}
