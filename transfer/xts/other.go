//go:build !amd64 && !(linux && arm64)

package xts

// These architectures have only the generic implementation. The functions below
// exist for the compiler: New and Cipher never call them for another
// implementation.

func missing(i implementation) string {
	if i == generic {
		return ""
	}
	return "another architecture"
}

func expandKey(*byte, *byte, int) { panic("xts: no AES instructions") }

func invertKey(*byte, *byte, int) { panic("xts: no AES instructions") }

func encryptBatch(i implementation, _ *batch) { panic("xts: no kernel " + i.String()) }

func decryptBatch(i implementation, _ *batch) { panic("xts: no kernel " + i.String()) }
