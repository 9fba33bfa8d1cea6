// The body of encryptAESNI and decryptAESNI, which differ in the round
// instructions ROUND and LAST and in the offset KEYS of their round keys.
//
// R8  batch            X0-X7 data
// DX  rounds           X8    the tweak after the last stored tweak
// DI  data             X9    scratch
// SI  sector's tweak   X14   carries
// R9  blocks left      X15   the round's key
// R10 sectors left
// R11 the data key's round keys
// AX  the same, but AES-128's k1 is where AES-256's k5 is
// R12 eight tweaks of this stride
// R13 eight tweaks of the next stride
//
// These tweaks are at BX and BX+128, because SSE needs a multiple of 16. The
// first tweaks of the sectors follow at BX+256, and then the memory that is
// loaded as the tweak after the last sector's.

	LEAQ 15(SP), BX
	ANDQ $~15, BX
	MOVQ batch_rounds(R8), DX
	MOVQ batch_keys(R8), R11

	// Encrypt eight ivs with the tweak key.
	MOVQ  batch_iv(R8), AX
	MOVQ  batch_step(R8), CX
	LEAQ  const_tweakKeys(R11), R12
	MOVOU (R12), X15
	IV(X0)
	IV(X1)
	IV(X2)
	IV(X3)
	IV(X4)
	IV(X5)
	IV(X6)
	IV(X7)
	LEAQ  -1(DX), CX

tweakRound:
	ADDQ $16, R12
	ROUND8(AESENC, (R12))
	DECQ CX
	JNZ  tweakRound

	ROUND8(AESENCLAST, 16(R12))
	LEAQ 256(BX), SI
	MOVO X0, 0(SI)
	MOVO X1, 16(SI)
	MOVO X2, 32(SI)
	MOVO X3, 48(SI)
	MOVO X4, 64(SI)
	MOVO X5, 80(SI)
	MOVO X6, 96(SI)
	MOVO X7, 112(SI)

	ADDQ  $KEYS, R11
	LEAQ  -14(DX), AX
	SHLQ  $4, AX
	ADDQ  R11, AX
	MOVOU carries<>(SB), X14
	MOVQ  batch_buf(R8), DI
	MOVQ  batch_sectors(R8), R10
	MOVQ  BX, R12
	LEAQ  128(BX), R13

sector:
	// A sector after a tail, or the first sector.
	MOVQ  batch_blocks(R8), R9
	MOVO  (SI), X8
	NEXT(0)
	NEXT(16)
	NEXT(32)
	NEXT(48)
	NEXT(64)
	NEXT(80)
	NEXT(96)
	NEXT(112)
	XCHGQ R12, R13
	CMPQ  R9, $8
	JLT   tail

stride:
	// Eight blocks are eight independent chains of rounds, enough to keep two
	// AES units of latency four busy. Between the rounds, the other units
	// compute the tweaks of the next stride. The last stride of a sector
	// computes the tweaks of the next sector's first stride.
	CMPQ  R9, $8
	JNE   sameSector
	MOVO  16(SI), X8

sameSector:
	MOVOU (R11), X15
	LOAD(0, X0)
	LOAD(16, X1)
	LOAD(32, X2)
	LOAD(48, X3)
	LOAD(64, X4)
	LOAD(80, X5)
	LOAD(96, X6)
	LOAD(112, X7)
	CMPQ  DX, $10
	JEQ   tenRounds
	ROUND8(ROUND, 16(R11))
	ROUND8(ROUND, 32(R11))
	ROUND8(ROUND, 48(R11))
	ROUND8(ROUND, 64(R11))

tenRounds:
	ROUND8(ROUND, 80(AX))
	NEXT(0)
	ROUND8(ROUND, 96(AX))
	NEXT(16)
	ROUND8(ROUND, 112(AX))
	NEXT(32)
	ROUND8(ROUND, 128(AX))
	NEXT(48)
	ROUND8(ROUND, 144(AX))
	NEXT(64)
	ROUND8(ROUND, 160(AX))
	NEXT(80)
	ROUND8(ROUND, 176(AX))
	NEXT(96)
	ROUND8(ROUND, 192(AX))
	NEXT(112)
	ROUND8(ROUND, 208(AX))
	ROUND8(LAST, 224(AX))
	STORE(0, X0)
	STORE(16, X1)
	STORE(32, X2)
	STORE(48, X3)
	STORE(64, X4)
	STORE(80, X5)
	STORE(96, X6)
	STORE(112, X7)
	XCHGQ R12, R13
	ADDQ  $128, DI
	SUBQ  $8, R9
	JZ    wholeStrides
	CMPQ  R9, $8
	JGE   stride

tail:
	// Process 1 to 7 blocks, one at a time, with tweaks from CX on.
	MOVQ R12, CX

block:
	MOVOU (DI), X0
	MOVOU (R11), X15
	PXOR  X15, X0
	PXOR  (CX), X0
	CMPQ  DX, $10
	JEQ   tenTailRounds
	ROUND1(ROUND, 16(R11))
	ROUND1(ROUND, 32(R11))
	ROUND1(ROUND, 48(R11))
	ROUND1(ROUND, 64(R11))

tenTailRounds:
	ROUND1(ROUND, 80(AX))
	ROUND1(ROUND, 96(AX))
	ROUND1(ROUND, 112(AX))
	ROUND1(ROUND, 128(AX))
	ROUND1(ROUND, 144(AX))
	ROUND1(ROUND, 160(AX))
	ROUND1(ROUND, 176(AX))
	ROUND1(ROUND, 192(AX))
	ROUND1(ROUND, 208(AX))
	ROUND1(LAST, 224(AX))
	PXOR  (CX), X0
	MOVOU X0, (DI)
	ADDQ  $16, CX
	ADDQ  $16, DI
	DECQ  R9
	JNZ   block
	ADDQ  $16, SI
	DECQ  R10
	JNZ   sector
	JMP   done

wholeStrides:
	// The tweaks of the next sector's first stride exist already.
	MOVQ batch_blocks(R8), R9
	ADDQ $16, SI
	DECQ R10
	JNZ  stride

done:
	// Wipe the keys in X15, and the tweaks in X8, X9 and on the stack.
	PXOR X15, X15
	PXOR X9, X9
	PXOR X8, X8
	MOVL $24, CX

wipe:
	MOVO X8, (BX)
	ADDQ $16, BX
	DECL CX
	JNZ  wipe
	RET
