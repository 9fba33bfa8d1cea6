#include "textflag.h"

// Key expansion (FIPS 197, 5.2) with AESKEYGENASSIST, in constant time. X0 (and
// X1) are the newest round keys; DI is the address of the next round key.

// PREFIX sets word n of x to the XOR of its words 0 to n, and then adds t to
// each word.
#define PREFIX(x, t) \
	MOVO  x, X3  \
	PSLLO $4, X3 \
	PXOR  X3, x  \
	PSLLO $4, X3 \
	PXOR  X3, x  \
	PSLLO $4, X3 \
	PXOR  X3, x  \
	PXOR  t, x

// ROTATED turns x, which is nk words older, into the next round key. The words
// are chained to RotWord(SubWord(last)) ^ rcon, which AESKEYGENASSIST puts into
// word 3.
#define ROTATED(rcon, last, x) \
	AESKEYGENASSIST $rcon, last, X2 \
	PSHUFD $0xff, X2, X2            \
	PREFIX(x, X2)                   \
	MOVOU  x, (DI)                  \
	ADDQ   $16, DI

// UNROTATED does the same for AES-256's odd round keys. They are chained to
// SubWord(last), which AESKEYGENASSIST puts into word 2.
#define UNROTATED(last, x) \
	AESKEYGENASSIST $0, last, X2 \
	PSHUFD $0xaa, X2, X2         \
	PREFIX(x, X2)                \
	MOVOU  x, (DI)               \
	ADDQ   $16, DI

// func expandKey(schedule, key *byte, rounds int)
TEXT ·expandKey(SB), NOSPLIT, $0-24
	MOVQ  schedule+0(FP), DI
	MOVQ  key+8(FP), SI
	MOVQ  rounds+16(FP), CX
	MOVOU (SI), X0
	MOVOU X0, (DI)
	ADDQ  $16, DI
	CMPQ  CX, $10
	JNE   aes256
	ROTATED(0x01, X0, X0)
	ROTATED(0x02, X0, X0)
	ROTATED(0x04, X0, X0)
	ROTATED(0x08, X0, X0)
	ROTATED(0x10, X0, X0)
	ROTATED(0x20, X0, X0)
	ROTATED(0x40, X0, X0)
	ROTATED(0x80, X0, X0)
	ROTATED(0x1b, X0, X0)
	ROTATED(0x36, X0, X0)
	JMP   wipe

aes256:
	MOVOU 16(SI), X1
	MOVOU X1, (DI)
	ADDQ  $16, DI
	ROTATED(0x01, X1, X0)
	UNROTATED(X0, X1)
	ROTATED(0x02, X1, X0)
	UNROTATED(X0, X1)
	ROTATED(0x04, X1, X0)
	UNROTATED(X0, X1)
	ROTATED(0x08, X1, X0)
	UNROTATED(X0, X1)
	ROTATED(0x10, X1, X0)
	UNROTATED(X0, X1)
	ROTATED(0x20, X1, X0)
	UNROTATED(X0, X1)
	ROTATED(0x40, X1, X0)

wipe:
	PXOR X0, X0
	PXOR X1, X1
	PXOR X2, X2
	PXOR X3, X3
	RET

// func invertKey(inverse, schedule *byte, rounds int)
//
// The equivalent inverse cipher uses the round keys in reverse order. All but
// the first and the last go through InvMixColumns.
TEXT ·invertKey(SB), NOSPLIT, $0-24
	MOVQ  inverse+0(FP), DI
	MOVQ  schedule+8(FP), SI
	MOVQ  rounds+16(FP), CX
	MOVQ  CX, AX
	SHLQ  $4, AX
	ADDQ  AX, SI
	MOVOU (SI), X0
	MOVOU X0, (DI)
	DECQ  CX

middle:
	SUBQ   $16, SI
	ADDQ   $16, DI
	MOVOU  (SI), X0
	AESIMC X0, X0
	MOVOU  X0, (DI)
	DECQ   CX
	JNZ    middle

	MOVOU -16(SI), X0
	MOVOU X0, 16(DI)
	PXOR  X0, X0
	RET
