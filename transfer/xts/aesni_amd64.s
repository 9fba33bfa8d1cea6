#include "go_asm.h"
#include "textflag.h"

// XTS-AES with AES-NI and SSE2, for processors without VAES.

// carries replaces the bits that doubling a tweak shifts out. The top bit of
// the upper qword is x^128 = x^7+x^2+x+1. The top bit of the lower qword
// becomes bit 0 of the upper qword.
DATA carries<>+0(SB)/8, $0x87
DATA carries<>+8(SB)/8, $0x01
GLOBL carries<>(SB), RODATA|NOPTR, $16

// DOUBLE multiplies the tweak in X8 by x. PSHUFD moves the top dword of the
// upper qword to the first place, and the top dword of the lower qword to the
// third. PSRAD turns each top bit into a mask.
#define DOUBLE \
	PSHUFD $0x13, X8, X9 \
	PADDQ  X8, X8        \
	PSRAL  $31, X9       \
	PAND   X14, X9       \
	PXOR   X9, X8

// ROUND8 applies the round with the key at an address to eight blocks. It loads
// the key into a register, because SSE takes only aligned operands.
#define ROUND8(OP, key) \
	MOVOU key, X15 \
	OP    X15, X0 \
	OP    X15, X1 \
	OP    X15, X2 \
	OP    X15, X3 \
	OP    X15, X4 \
	OP    X15, X5 \
	OP    X15, X6 \
	OP    X15, X7

// ROUND1 applies the round with the key at an address to one block.
#define ROUND1(OP, key) \
	MOVOU key, X15 \
	OP    X15, X0

// LOAD loads a block and adds the first round key, X15, and the block's tweak.
#define LOAD(offset, data) \
	MOVOU offset(DI), data  \
	PXOR  X15, data         \
	PXOR  offset(R12), data

// STORE adds the tweak again and stores a block.
#define STORE(offset, data) \
	PXOR  offset(R12), data \
	MOVOU data, offset(DI)

// NEXT stores the tweak of a block of the next stride.
#define NEXT(offset) \
	MOVO X8, offset(R13) \
	DOUBLE

// IV turns the iv of a sector into a block, and advances to the next iv.
#define IV(data) \
	MOVQ AX, data  \
	PXOR X15, data \
	ADDQ CX, AX

// func encryptAESNI(b *batch)
TEXT ·encryptAESNI(SB), 0, $416-8
	MOVQ b+0(FP), R8
#define KEYS const_encryptKeys
#define ROUND AESENC
#define LAST AESENCLAST
#include "aesni_amd64.h"
#undef KEYS
#undef ROUND
#undef LAST

// func decryptAESNI(b *batch)
TEXT ·decryptAESNI(SB), 0, $416-8
	MOVQ b+0(FP), R8
#define KEYS const_decryptKeys
#define ROUND AESDEC
#define LAST AESDECLAST
#include "aesni_amd64.h"
