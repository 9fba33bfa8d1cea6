// The body of encryptVAES512 and decryptVAES512, which differ in the round
// instructions ROUND and LAST and in the offset KEYS of their round keys.
//
// R8  batch            Z0-Z14  round keys; AES-128 leaves Z1-Z4 unused
// DX  rounds           Z15     x^7+x^2+x+1 in each qword
// DI  data             Z16-Z23 data, and scratch between strides
// SI  sector's tweak   Z24-Z31 tweaks
// R9  blocks left in the sector
// R10 sectors left

	MOVQ batch_rounds(R8), DX
	MOVQ batch_keys(R8), R9

	// Z16 and Z17 get the ivs of sectors 0-3 and 4-7, each iv in the lower half
	// of a block. VMOVQ zeroes the rest of the register.
	MOVQ         batch_iv(R8), AX
	MOVQ         batch_step(R8), BX
	VMOVQ        AX, X0
	ADDQ         BX, AX
	VMOVQ        AX, X1
	ADDQ         BX, AX
	VMOVQ        AX, X2
	ADDQ         BX, AX
	VMOVQ        AX, X3
	VINSERTI128  $1, X1, Y0, Y0
	VINSERTI128  $1, X3, Y2, Y2
	VINSERTI64X4 $1, Y2, Z0, Z16
	SHLQ         $2, BX
	VMOVQ        BX, X1
	VSHUFI64X2   $0, Z1, Z1, Z1
	VPADDQ       Z1, Z16, Z17

	// Encrypt them with the tweak key and keep the results on the stack.
	LEAQ            const_tweakKeys(R9), R12
	VBROADCASTI32X4 (R12), Z0
	VPXORQ          Z0, Z16, Z16
	VPXORQ          Z0, Z17, Z17
	LEAQ            -1(DX), CX

tweakRound:
	ADDQ            $16, R12
	VBROADCASTI32X4 (R12), Z0
	VAESENC         Z0, Z16, Z16
	VAESENC         Z0, Z17, Z17
	DECQ            CX
	JNZ             tweakRound

	VBROADCASTI32X4 16(R12), Z0
	VAESENCLAST     Z0, Z16, Z16
	VAESENCLAST     Z0, Z17, Z17
	VMOVDQU64       Z16, 0(SP)
	VMOVDQU64       Z17, 64(SP)

	// Load the data key's round keys. k1 to k10 of AES-128 use the registers of
	// k5 to k14 of AES-256, so the only difference is a jump over four rounds.
	ADDQ            $KEYS, R9
	VBROADCASTI32X4 0(R9), Z0
	VBROADCASTI32X4 16(R9), Z1
	VBROADCASTI32X4 32(R9), Z2
	VBROADCASTI32X4 48(R9), Z3
	VBROADCASTI32X4 64(R9), Z4
	MOVQ            DX, AX
	SHLQ            $4, AX
	ADDQ            AX, R9
	VBROADCASTI32X4 -144(R9), Z5
	VBROADCASTI32X4 -128(R9), Z6
	VBROADCASTI32X4 -112(R9), Z7
	VBROADCASTI32X4 -96(R9), Z8
	VBROADCASTI32X4 -80(R9), Z9
	VBROADCASTI32X4 -64(R9), Z10
	VBROADCASTI32X4 -48(R9), Z11
	VBROADCASTI32X4 -32(R9), Z12
	VBROADCASTI32X4 -16(R9), Z13
	VBROADCASTI32X4 0(R9), Z14

	MOVQ         $0x87, AX
	VPBROADCASTQ AX, Z15
	MOVQ         batch_buf(R8), DI
	MOVQ         batch_sectors(R8), R10
	MOVQ         SP, SI

sector:
	// Compute the tweaks of blocks 0-31 in Z24-Z31: the first eight by a
	// different shift for each block, the others from these by whole bytes.
	VBROADCASTI32X4 (SI), Z16
	VPSLLVQ         left512<>+0(SB), Z16, Z24
	VPSRLVQ         right512<>+0(SB), Z16, Z17
	FOLD(Z17, Z24)
	VPSLLVQ         left512<>+64(SB), Z16, Z25
	VPSRLVQ         right512<>+64(SB), Z16, Z17
	FOLD(Z17, Z25)
	BYTES(1, Z24, Z16, Z26)
	BYTES(1, Z25, Z17, Z27)
	BYTES(2, Z24, Z18, Z28)
	BYTES(2, Z25, Z19, Z29)
	BYTES(2, Z26, Z20, Z30)
	BYTES(2, Z27, Z21, Z31)

	MOVQ batch_blocks(R8), R9
	CMPQ R9, $32
	JLT  tail

stride:
	// 32 blocks, a sector of 512 bytes, are eight independent chains of rounds,
	// enough to keep two AES units of latency four busy.
	LOAD(0, Z24, Z16)
	LOAD(64, Z25, Z17)
	LOAD(128, Z26, Z18)
	LOAD(192, Z27, Z19)
	LOAD(256, Z28, Z20)
	LOAD(320, Z29, Z21)
	LOAD(384, Z30, Z22)
	LOAD(448, Z31, Z23)
	CMPQ DX, $10
	JEQ  tenRounds
	ROUND8(ROUND, Z1)
	ROUND8(ROUND, Z2)
	ROUND8(ROUND, Z3)
	ROUND8(ROUND, Z4)

tenRounds:
	ROUND8(ROUND, Z5)
	ROUND8(ROUND, Z6)
	ROUND8(ROUND, Z7)
	ROUND8(ROUND, Z8)
	ROUND8(ROUND, Z9)
	ROUND8(ROUND, Z10)
	ROUND8(ROUND, Z11)
	ROUND8(ROUND, Z12)
	ROUND8(ROUND, Z13)
	ROUND8(LAST, Z14)
	STORE(0, Z24, Z16)
	STORE(64, Z25, Z17)
	STORE(128, Z26, Z18)
	STORE(192, Z27, Z19)
	STORE(256, Z28, Z20)
	STORE(320, Z29, Z21)
	STORE(384, Z30, Z22)
	STORE(448, Z31, Z23)
	ADDQ $512, DI
	SUBQ $32, R9
	JZ   nextSector

	// The tweaks of the next 32 blocks are these tweaks times x^32.
	BYTES(4, Z24, Z16, Z24)
	BYTES(4, Z25, Z17, Z25)
	BYTES(4, Z26, Z18, Z26)
	BYTES(4, Z27, Z19, Z27)
	BYTES(4, Z28, Z20, Z28)
	BYTES(4, Z29, Z21, Z29)
	BYTES(4, Z30, Z22, Z30)
	BYTES(4, Z31, Z23, Z31)
	CMPQ R9, $32
	JGE  stride

tail:
	// Process 1 to 31 blocks, four at a time. K1 has a bit for each qword of
	// the remaining blocks, so no other memory is accessed.
	MOVL       $4, CX
	CMPQ       R9, CX
	CMOVQLT    R9, CX
	SUBQ       CX, R9
	ADDL       CX, CX
	MOVL       $1, AX
	SHLL       CX, AX
	DECL       AX
	KMOVW      AX, K1
	VMOVDQU64.Z (DI), K1, Z16
	VPTERNLOGQ $0x96, Z24, Z0, Z16
	CMPQ       DX, $10
	JEQ        tenTailRounds
	ROUND      Z1, Z16, Z16
	ROUND      Z2, Z16, Z16
	ROUND      Z3, Z16, Z16
	ROUND      Z4, Z16, Z16

tenTailRounds:
	ROUND     Z5, Z16, Z16
	ROUND     Z6, Z16, Z16
	ROUND     Z7, Z16, Z16
	ROUND     Z8, Z16, Z16
	ROUND     Z9, Z16, Z16
	ROUND     Z10, Z16, Z16
	ROUND     Z11, Z16, Z16
	ROUND     Z12, Z16, Z16
	ROUND     Z13, Z16, Z16
	LAST      Z14, Z16, Z16
	VPXORQ    Z24, Z16, Z16
	VMOVDQU64 Z16, K1, (DI)
	LEAQ      (DI)(CX*8), DI

	// The tweaks of the next four blocks are these tweaks times x^4.
	VPSRLQ $60, Z24, Z17
	VPSLLQ $4, Z24, Z24
	FOLD(Z17, Z24)
	TESTQ  R9, R9
	JNZ    tail

nextSector:
	ADDQ $16, SI
	DECQ R10
	JNZ  sector

	// Wipe the keys in Z0-Z14, and the tweaks in Z16-Z31 and on the stack.
	// VZEROALL clears Z0-Z15 and also has the effect of VZEROUPPER.
	VZEROALL
	VPXORQ  Z16, Z16, Z16
	VPXORQ  Z17, Z17, Z17
	VPXORQ  Z18, Z18, Z18
	VPXORQ  Z19, Z19, Z19
	VPXORQ  Z20, Z20, Z20
	VPXORQ  Z21, Z21, Z21
	VPXORQ  Z22, Z22, Z22
	VPXORQ  Z23, Z23, Z23
	VPXORQ  Z24, Z24, Z24
	VPXORQ  Z25, Z25, Z25
	VPXORQ  Z26, Z26, Z26
	VPXORQ  Z27, Z27, Z27
	VPXORQ  Z28, Z28, Z28
	VPXORQ  Z29, Z29, Z29
	VPXORQ  Z30, Z30, Z30
	VPXORQ  Z31, Z31, Z31
	VMOVDQU Y0, 0(SP)
	VMOVDQU Y0, 32(SP)
	VMOVDQU Y0, 64(SP)
	VMOVDQU Y0, 96(SP)
	RET
