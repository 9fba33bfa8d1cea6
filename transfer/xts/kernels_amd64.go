package xts

// Each kernel is in the file with its name. A kernel keeps no pointer, so a
// batch stays on its caller's stack.

//go:noescape
func encryptAESNI(b *batch)

//go:noescape
func decryptAESNI(b *batch)

//go:noescape
func encryptVAES256(b *batch)

//go:noescape
func decryptVAES256(b *batch)

//go:noescape
func encryptVAES512(b *batch)

//go:noescape
func decryptVAES512(b *batch)

// expandKey writes rounds+1 round keys of an AES key to schedule.
//
//go:noescape
func expandKey(schedule, key *byte, rounds int)

// invertKey writes the decryption schedule of an encryption schedule.
//
//go:noescape
func invertKey(inverse, schedule *byte, rounds int)

func encryptBatch(i implementation, b *batch) {
	switch i {
	case vaesAVX512:
		encryptVAES512(b)
	case vaesAVX2:
		encryptVAES256(b)
	case aesni:
		encryptAESNI(b)
	default:
		panic("xts: no kernel " + i.String())
	}
}

func decryptBatch(i implementation, b *batch) {
	switch i {
	case vaesAVX512:
		decryptVAES512(b)
	case vaesAVX2:
		decryptVAES256(b)
	case aesni:
		decryptAESNI(b)
	default:
		panic("xts: no kernel " + i.String())
	}
}
