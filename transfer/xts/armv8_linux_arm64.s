#include "go_asm.h"
#include "textflag.h"

// XTS-AES with the ARMv8 Cryptographic Extension. AESE adds the round key
// first, then does SubBytes and ShiftRows; AESMC does MixColumns. Therefore the
// last AESE has no AESMC, and a separate instruction adds the last round key.

// KEYS loads a schedule: the first four round keys of AES-256 to V16-V19, and
// the last eleven round keys to V20-V30. AES-128 has only these eleven and
// skips V16-V19.
#define KEYS(offset) \
	ADD  $offset, R3, R10                               \
	VLD1 (R10), [V16.B16, V17.B16, V18.B16, V19.B16]    \
	SUB  $10, R4, R11                                   \
	ADD  R11<<4, R10                                    \
	VLD1.P 64(R10), [V20.B16, V21.B16, V22.B16, V23.B16] \
	VLD1.P 64(R10), [V24.B16, V25.B16, V26.B16, V27.B16] \
	VLD1 (R10), [V28.B16, V29.B16, V30.B16]

// ROUND1 applies one round to a block. Cores fuse the two instructions if they
// are adjacent.
#define ROUND1(OP, MIX, key, data) \
	OP  key.B16, data.B16 \
	MIX data.B16, data.B16

// ROUND8 applies one round to eight blocks.
#define ROUND8(OP, MIX, key) \
	ROUND1(OP, MIX, key, V0) \
	ROUND1(OP, MIX, key, V1) \
	ROUND1(OP, MIX, key, V2) \
	ROUND1(OP, MIX, key, V3) \
	ROUND1(OP, MIX, key, V4) \
	ROUND1(OP, MIX, key, V5) \
	ROUND1(OP, MIX, key, V6) \
	ROUND1(OP, MIX, key, V7)

// LAST8 applies the last round to eight blocks.
#define LAST8(OP) \
	OP V29.B16, V0.B16 \
	OP V29.B16, V1.B16 \
	OP V29.B16, V2.B16 \
	OP V29.B16, V3.B16 \
	OP V29.B16, V4.B16 \
	OP V29.B16, V5.B16 \
	OP V29.B16, V6.B16 \
	OP V29.B16, V7.B16 \
	VEOR V30.B16, V0.B16, V0.B16 \
	VEOR V30.B16, V1.B16, V1.B16 \
	VEOR V30.B16, V2.B16, V2.B16 \
	VEOR V30.B16, V3.B16, V3.B16 \
	VEOR V30.B16, V4.B16, V4.B16 \
	VEOR V30.B16, V5.B16, V5.B16 \
	VEOR V30.B16, V6.B16, V6.B16 \
	VEOR V30.B16, V7.B16, V7.B16

// FOUR8 applies the rounds that only AES-256 has to eight blocks.
#define FOUR8(OP, MIX) \
	ROUND8(OP, MIX, V16) \
	ROUND8(OP, MIX, V17) \
	ROUND8(OP, MIX, V18) \
	ROUND8(OP, MIX, V19)

// TEN8 applies the rounds that AES-128 and AES-256 have to eight blocks.
#define TEN8(OP, MIX) \
	ROUND8(OP, MIX, V20) \
	ROUND8(OP, MIX, V21) \
	ROUND8(OP, MIX, V22) \
	ROUND8(OP, MIX, V23) \
	ROUND8(OP, MIX, V24) \
	ROUND8(OP, MIX, V25) \
	ROUND8(OP, MIX, V26) \
	ROUND8(OP, MIX, V27) \
	ROUND8(OP, MIX, V28) \
	LAST8(OP)

// TWEAK8 adds the tweaks of eight blocks.
#define TWEAK8 \
	VEOR V8.B16, V0.B16, V0.B16 \
	VEOR V9.B16, V1.B16, V1.B16 \
	VEOR V10.B16, V2.B16, V2.B16 \
	VEOR V11.B16, V3.B16, V3.B16 \
	VEOR V12.B16, V4.B16, V4.B16 \
	VEOR V13.B16, V5.B16, V5.B16 \
	VEOR V14.B16, V6.B16, V6.B16 \
	VEOR V15.B16, V7.B16, V7.B16

// TAKE copies the tweak in R6 (low) and R7 into a vector register, and doubles
// it. The macro needs the register's names as vector and as float. The bit that
// is shifted out on top, x^128, is added below as x^7+x^2+x+1, which is in R12.
#define TAKE(vector, float) \
	FMOVD R6, float        \
	VMOV  R7, vector.D[1]  \
	ASR   $63, R7, R9      \
	AND   R12, R9, R9      \
	EXTR  $63, R6, R7, R7  \
	EOR   R6<<1, R9, R6

// IV turns the iv in R6 into a block, and advances to the next sector's iv.
#define IV(float) \
	FMOVD R6, float \
	ADD   R7, R6, R6

// func encryptARMv8(b *batch)
TEXT ·encryptARMv8(SB), 0, $128-8
	MOVD b+0(FP), R0
#define OFFSET const_encryptKeys
#define ROUND AESE
#define MIX AESMC
#include "armv8_linux_arm64.h"
#undef OFFSET
#undef ROUND
#undef MIX

// func decryptARMv8(b *batch)
TEXT ·decryptARMv8(SB), 0, $128-8
	MOVD b+0(FP), R0
#define OFFSET const_decryptKeys
#define ROUND AESD
#define MIX AESIMC
#include "armv8_linux_arm64.h"
