//go:build !amd64 && !(linux && arm64)

package xts

// On these architectures only the generic implementation exists, and what New
// and a Cipher call for the others is never reached.

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
