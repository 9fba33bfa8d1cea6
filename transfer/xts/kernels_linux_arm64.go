package xts

// The kernel keeps no pointer, so a batch stays on its caller's stack.

//go:noescape
func encryptARMv8(b *batch)

//go:noescape
func decryptARMv8(b *batch)

// expandKey writes rounds+1 round keys of an AES key to schedule.
//
//go:noescape
func expandKey(schedule, key *byte, rounds int)

// invertKey writes the decryption schedule of an encryption schedule.
//
//go:noescape
func invertKey(inverse, schedule *byte, rounds int)

func encryptBatch(i implementation, b *batch) {
	if i != armv8 {
		panic("xts: no kernel " + i.String())
	}
	encryptARMv8(b)
}

func decryptBatch(i implementation, b *batch) {
	if i != armv8 {
		panic("xts: no kernel " + i.String())
	}
	decryptARMv8(b)
}
