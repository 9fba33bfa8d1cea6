#include "textflag.h"

// func expandKey(schedule, key *byte, rounds int)
//
// Key expansion (FIPS 197, 5.2), word by word and in constant time. SubWord is
// AESE with a key of zeros on a block of four equal words: ShiftRows does not
// change such a block.
//
// R0 next word    R4 words until the next RotWord, counting down from nk
// R2 words left   R5 word
// R3 nk, 4 or 8   R6 rcon
TEXT ·expandKey(SB), NOSPLIT, $0-24
	MOVD schedule+0(FP), R0
	MOVD key+8(FP), R1
	MOVD rounds+16(FP), R2
	SUB  $6, R2, R3        // nk = rounds - 6
	ADD  $1, R2
	LSL  $2, R2
	SUB  R3, R2            // 4*(rounds+1) words; the first nk are the key
	MOVD R3, R4

key:
	MOVWU.P 4(R1), R5
	MOVWU.P R5, 4(R0)
	SUB     $1, R4
	CBNZ    R4, key

	MOVD $1, R6
	LSL  $2, R3, R7        // distance to the word nk words earlier
	VEOR V1.B16, V1.B16, V1.B16

word:
	// R5 is the previous word.
	CBNZ R4, notFirst
	MOVD R3, R4
	VDUP R5, V0.S4
	AESE V1.B16, V0.B16
	VMOV V0.S[0], R5
	RORW $8, R5, R5
	EOR  R6, R5, R5
	LSL  $1, R6
	CMP  $0x100, R6
	BNE  chain
	MOVD $0x1b, R6         // x^8 = x^4+x^3+x+1
	B    chain

notFirst:
	// AES-256 also substitutes in the middle of its eight words.
	CMP  $4, R4
	BNE  chain
	CMP  $8, R3
	BNE  chain
	VDUP R5, V0.S4
	AESE V1.B16, V0.B16
	VMOV V0.S[0], R5

chain:
	SUB     R7, R0, R8
	MOVWU   (R8), R8
	EORW    R8, R5, R5
	MOVWU.P R5, 4(R0)
	SUB     $1, R4
	SUB     $1, R2
	CBNZ    R2, word

	VEOR V0.B16, V0.B16, V0.B16
	MOVD ZR, R5
	MOVD ZR, R8
	RET

// func invertKey(inverse, schedule *byte, rounds int)
//
// The equivalent inverse cipher uses the round keys in reverse order. All but
// the first and the last go through InvMixColumns.
TEXT ·invertKey(SB), NOSPLIT, $0-24
	MOVD   inverse+0(FP), R0
	MOVD   schedule+8(FP), R1
	MOVD   rounds+16(FP), R2
	ADD    R2<<4, R1
	VLD1   (R1), [V0.B16]
	VST1.P [V0.B16], 16(R0)
	SUB    $1, R2

middle:
	SUB    $16, R1
	VLD1   (R1), [V0.B16]
	AESIMC V0.B16, V0.B16
	VST1.P [V0.B16], 16(R0)
	SUB    $1, R2
	CBNZ   R2, middle

	SUB  $16, R1
	VLD1 (R1), [V0.B16]
	VST1 [V0.B16], (R0)
	VEOR V0.B16, V0.B16, V0.B16
	RET
