// The body of encryptVAES256 and decryptVAES256, which differ in the round
// instructions ROUND and LAST and in the offset KEYS of their round keys.
//
// R8  batch            Y0-Y7  data
// DX  rounds           Y8-Y13 tweaks in progress, and scratch
// DI  data             Y14    x^7+x^2+x+1 in each qword
// SI  sector's tweak   Y15    the round's key
// R9  blocks left in the sector
// R10 sectors left
// R11 the data key's round keys
// R12 the same, but AES-128's k1 is where AES-256's k5 is
//
// 0-255(SP) has the stride's tweaks, 256-383(SP) the sectors' first tweaks.

	MOVQ batch_rounds(R8), DX
	MOVQ batch_keys(R8), R11

	// Y0-Y3 get the ivs of two sectors each, each iv in the lower half of a
	// block. VMOVQ zeroes the rest of the register.
	MOVQ         batch_iv(R8), AX
	MOVQ         batch_step(R8), BX
	VMOVQ        AX, X0
	ADDQ         BX, AX
	VMOVQ        AX, X1
	VINSERTI128  $1, X1, Y0, Y0
	ADDQ         BX, BX
	VMOVQ        BX, X4
	VINSERTI128  $1, X4, Y4, Y4
	VPADDQ       Y4, Y0, Y1
	VPADDQ       Y4, Y1, Y2
	VPADDQ       Y4, Y2, Y3

	// Encrypt them with the tweak key and keep the results on the stack.
	LEAQ           const_tweakKeys(R11), R12
	VBROADCASTI128 (R12), Y15
	VPXOR          Y15, Y0, Y0
	VPXOR          Y15, Y1, Y1
	VPXOR          Y15, Y2, Y2
	VPXOR          Y15, Y3, Y3
	LEAQ           -1(DX), CX

tweakRound:
	ADDQ           $16, R12
	VBROADCASTI128 (R12), Y15
	VAESENC        Y15, Y0, Y0
	VAESENC        Y15, Y1, Y1
	VAESENC        Y15, Y2, Y2
	VAESENC        Y15, Y3, Y3
	DECQ           CX
	JNZ            tweakRound

	VBROADCASTI128 16(R12), Y15
	VAESENCLAST    Y15, Y0, Y0
	VAESENCLAST    Y15, Y1, Y1
	VAESENCLAST    Y15, Y2, Y2
	VAESENCLAST    Y15, Y3, Y3
	VMOVDQU        Y0, 256(SP)
	VMOVDQU        Y1, 288(SP)
	VMOVDQU        Y2, 320(SP)
	VMOVDQU        Y3, 352(SP)

	ADDQ         $KEYS, R11
	LEAQ         -14(DX), R12
	SHLQ         $4, R12
	ADDQ         R11, R12
	MOVQ         $0x87, AX
	VMOVQ        AX, X14
	VPBROADCASTQ X14, Y14
	MOVQ         batch_buf(R8), DI
	MOVQ         batch_sectors(R8), R10
	LEAQ         256(SP), SI

sector:
	// Compute the tweaks of blocks 0-15: the first two by different shifts, the
	// others by doubling the number of tweaks.
	VBROADCASTI128 (SI), Y0
	VPSLLVQ        left256<>(SB), Y0, Y8
	VPSRLVQ        right256<>(SB), Y0, Y1
	FOLD(Y14, Y1, Y2, Y8)
	VMOVDQU        Y8, 0(SP)
	BITS(2, Y8, Y0, Y1, Y9)
	VMOVDQU        Y9, 32(SP)
	BITS(4, Y8, Y0, Y1, Y10)
	VMOVDQU        Y10, 64(SP)
	BITS(4, Y9, Y2, Y3, Y11)
	VMOVDQU        Y11, 96(SP)
	BYTES(1, Y8, Y0, Y4)
	VMOVDQU        Y4, 128(SP)
	BYTES(1, Y9, Y1, Y5)
	VMOVDQU        Y5, 160(SP)
	BYTES(1, Y10, Y2, Y6)
	VMOVDQU        Y6, 192(SP)
	BYTES(1, Y11, Y3, Y7)
	VMOVDQU        Y7, 224(SP)

	MOVQ batch_blocks(R8), R9
	CMPQ R9, $16
	JLT  tail

stride:
	// 16 blocks are eight independent chains of rounds, enough to keep two AES
	// units of latency four busy.
	VBROADCASTI128 (R11), Y15
	LOAD(0, Y0)
	LOAD(32, Y1)
	LOAD(64, Y2)
	LOAD(96, Y3)
	LOAD(128, Y4)
	LOAD(160, Y5)
	LOAD(192, Y6)
	LOAD(224, Y7)
	CMPQ DX, $10
	JEQ  tenRounds
	ROUND8(ROUND, 16(R11))
	ROUND8(ROUND, 32(R11))
	ROUND8(ROUND, 48(R11))
	ROUND8(ROUND, 64(R11))

tenRounds:
	ROUND8(ROUND, 80(R12))
	ROUND8(ROUND, 96(R12))
	ROUND8(ROUND, 112(R12))
	ROUND8(ROUND, 128(R12))
	ROUND8(ROUND, 144(R12))
	ROUND8(ROUND, 160(R12))
	ROUND8(ROUND, 176(R12))
	ROUND8(ROUND, 192(R12))
	ROUND8(ROUND, 208(R12))
	ROUND8(LAST, 224(R12))
	STORE(0, Y0, Y8)
	STORE(32, Y1, Y9)
	STORE(64, Y2, Y10)
	STORE(96, Y3, Y11)
	STORE(128, Y4, Y12)
	STORE(160, Y5, Y13)
	STORE(192, Y6, Y0)
	STORE(224, Y7, Y1)
	ADDQ $256, DI
	SUBQ $16, R9
	JZ   nextSector

	// The tweaks of the next 16 blocks are these tweaks times x^16.
	NEXT(0, Y8, Y2)
	NEXT(32, Y9, Y3)
	NEXT(64, Y10, Y4)
	NEXT(96, Y11, Y5)
	NEXT(128, Y12, Y6)
	NEXT(160, Y13, Y7)
	NEXT(192, Y0, Y2)
	NEXT(224, Y1, Y3)
	CMPQ R9, $16
	JGE  stride

tail:
	// Process 1 to 15 blocks, one at a time, with the tweak in X8.
	VMOVDQU (SP), X8

block:
	VPXOR (DI), X8, X0
	VPXOR (R11), X0, X0
	CMPQ  DX, $10
	JEQ   tenTailRounds
	ROUND 16(R11), X0, X0
	ROUND 32(R11), X0, X0
	ROUND 48(R11), X0, X0
	ROUND 64(R11), X0, X0

tenTailRounds:
	ROUND   80(R12), X0, X0
	ROUND   96(R12), X0, X0
	ROUND   112(R12), X0, X0
	ROUND   128(R12), X0, X0
	ROUND   144(R12), X0, X0
	ROUND   160(R12), X0, X0
	ROUND   176(R12), X0, X0
	ROUND   192(R12), X0, X0
	ROUND   208(R12), X0, X0
	LAST    224(R12), X0, X0
	VPXOR   X8, X0, X0
	VMOVDQU X0, (DI)
	ADDQ    $16, DI
	VPSRLQ  $63, X8, X9
	VPSLLQ  $1, X8, X8
	FOLD(X14, X9, X10, X8)
	DECQ    R9
	JNZ     block

nextSector:
	ADDQ $16, SI
	DECQ R10
	JNZ  sector

	// Wipe the keys and tweaks in the registers, and the tweaks on the stack.
	// VZEROALL also has the effect of VZEROUPPER.
	VZEROALL
	VMOVDQU Y0, 0(SP)
	VMOVDQU Y0, 32(SP)
	VMOVDQU Y0, 64(SP)
	VMOVDQU Y0, 96(SP)
	VMOVDQU Y0, 128(SP)
	VMOVDQU Y0, 160(SP)
	VMOVDQU Y0, 192(SP)
	VMOVDQU Y0, 224(SP)
	VMOVDQU Y0, 256(SP)
	VMOVDQU Y0, 288(SP)
	VMOVDQU Y0, 320(SP)
	VMOVDQU Y0, 352(SP)
	RET
