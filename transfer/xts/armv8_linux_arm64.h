// The body of encryptARMv8 and decryptARMv8, which differ in the instructions
// ROUND and MIX and in the OFFSET of their round keys.
//
// R0  batch                          V0-V7   data
// R1  data to read                   V8-V15  tweaks
// R2  data to write                  V16-V30 round keys
// R3  round keys
// R4  rounds
// R5  blocks left in the sector
// R6  R7 the next block's tweak
// R8  sector's tweak
// R12 x^7+x^2+x+1
// R13 sectors left

	MOVD batch_keys(R0), R3
	MOVD batch_rounds(R0), R4

	// Encrypt eight ivs with the tweak key and keep the results on the stack.
	MOVD batch_iv(R0), R6
	MOVD batch_step(R0), R7
	IV(F0)
	IV(F1)
	IV(F2)
	IV(F3)
	IV(F4)
	IV(F5)
	IV(F6)
	IV(F7)
	KEYS(const_tweakKeys)
	CMP  $10, R4
	BEQ  tenTweakRounds
	FOUR8(AESE, AESMC)

tenTweakRounds:
	TEN8(AESE, AESMC)
	MOVD   $tweaks-128(SP), R8
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R8)
	VST1   [V4.B16, V5.B16, V6.B16, V7.B16], (R8)
	SUB    $64, R8

	KEYS(OFFSET)
	MOVD $0x87, R12
	MOVD batch_buf(R0), R1
	MOVD R1, R2
	MOVD batch_sectors(R0), R13

sector:
	LDP.P 16(R8), (R6, R7)
	MOVD  batch_blocks(R0), R5
	CMP   $8, R5
	BLT   block

stride:
	// Eight blocks are eight independent chains of rounds, enough to keep two
	// AES units of latency four busy.
	VLD1.P 64(R1), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R1), [V4.B16, V5.B16, V6.B16, V7.B16]
	TAKE(V8, F8)
	TAKE(V9, F9)
	TAKE(V10, F10)
	TAKE(V11, F11)
	TAKE(V12, F12)
	TAKE(V13, F13)
	TAKE(V14, F14)
	TAKE(V15, F15)
	TWEAK8
	CMP    $10, R4
	BEQ    tenRounds
	FOUR8(ROUND, MIX)

tenRounds:
	TEN8(ROUND, MIX)
	TWEAK8
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R2)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R2)
	SUB    $8, R5
	CBZ    R5, nextSector
	CMP    $8, R5
	BGE    stride

block:
	// Process 1 to 7 blocks, one at a time.
	VLD1.P 16(R1), [V0.B16]
	TAKE(V8, F8)
	VEOR   V8.B16, V0.B16, V0.B16
	CMP    $10, R4
	BEQ    tenTailRounds
	ROUND1(ROUND, MIX, V16, V0)
	ROUND1(ROUND, MIX, V17, V0)
	ROUND1(ROUND, MIX, V18, V0)
	ROUND1(ROUND, MIX, V19, V0)

tenTailRounds:
	ROUND1(ROUND, MIX, V20, V0)
	ROUND1(ROUND, MIX, V21, V0)
	ROUND1(ROUND, MIX, V22, V0)
	ROUND1(ROUND, MIX, V23, V0)
	ROUND1(ROUND, MIX, V24, V0)
	ROUND1(ROUND, MIX, V25, V0)
	ROUND1(ROUND, MIX, V26, V0)
	ROUND1(ROUND, MIX, V27, V0)
	ROUND1(ROUND, MIX, V28, V0)
	ROUND  V29.B16, V0.B16
	VEOR   V30.B16, V0.B16, V0.B16
	VEOR   V8.B16, V0.B16, V0.B16
	VST1.P [V0.B16], 16(R2)
	SUB    $1, R5
	CBNZ   R5, block

nextSector:
	SUB  $1, R13
	CBNZ R13, sector

	// Wipe the keys in V16-V30, and the tweaks in V8-V15, R6, R7 and on the
	// stack.
	MOVD ZR, R6
	MOVD ZR, R7
	VEOR V8.B16, V8.B16, V8.B16
	VEOR V9.B16, V9.B16, V9.B16
	VEOR V10.B16, V10.B16, V10.B16
	VEOR V11.B16, V11.B16, V11.B16
	VEOR V12.B16, V12.B16, V12.B16
	VEOR V13.B16, V13.B16, V13.B16
	VEOR V14.B16, V14.B16, V14.B16
	VEOR V15.B16, V15.B16, V15.B16
	VEOR V16.B16, V16.B16, V16.B16
	VEOR V17.B16, V17.B16, V17.B16
	VEOR V18.B16, V18.B16, V18.B16
	VEOR V19.B16, V19.B16, V19.B16
	VEOR V20.B16, V20.B16, V20.B16
	VEOR V21.B16, V21.B16, V21.B16
	VEOR V22.B16, V22.B16, V22.B16
	VEOR V23.B16, V23.B16, V23.B16
	VEOR V24.B16, V24.B16, V24.B16
	VEOR V25.B16, V25.B16, V25.B16
	VEOR V26.B16, V26.B16, V26.B16
	VEOR V27.B16, V27.B16, V27.B16
	VEOR V28.B16, V28.B16, V28.B16
	VEOR V29.B16, V29.B16, V29.B16
	VEOR V30.B16, V30.B16, V30.B16
	MOVD $tweaks-128(SP), R8
	STP.P (ZR, ZR), 16(R8)
	STP.P (ZR, ZR), 16(R8)
	STP.P (ZR, ZR), 16(R8)
	STP.P (ZR, ZR), 16(R8)
	STP.P (ZR, ZR), 16(R8)
	STP.P (ZR, ZR), 16(R8)
	STP.P (ZR, ZR), 16(R8)
	STP.P (ZR, ZR), 16(R8)
	RET
