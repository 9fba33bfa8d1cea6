#include "go_asm.h"
#include "textflag.h"

// XTS-AES with VAES and AVX2: a ymm register holds two blocks. Eight of the
// 16 registers hold data; round keys and tweaks are in memory.

// Shift counts for the tweaks of blocks 0 and 1, as in vaes512_amd64.s.
DATA left256<>+0(SB)/8, $0
DATA left256<>+8(SB)/8, $0
DATA left256<>+16(SB)/8, $1
DATA left256<>+24(SB)/8, $1
GLOBL left256<>(SB), RODATA|NOPTR, $32

DATA right256<>+0(SB)/8, $64
DATA right256<>+8(SB)/8, $64
DATA right256<>+16(SB)/8, $63
DATA right256<>+24(SB)/8, $63
GLOBL right256<>(SB), RODATA|NOPTR, $32

// FOLD completes a multiplication by a power of x. low has the qwords shifted
// left, and carry the bits that were shifted out of them. The carry of the
// lower qword goes into the upper qword. The carry of the upper qword is
// multiplied by x^128 = x^7+x^2+x+1, which is in both qwords of poly, and goes
// into the lower qword. The arguments are all Xn or all Yn.
#define FOLD(poly, carry, scratch, low) \
	VPSLLDQ    $8, carry, scratch        \
	VPCLMULQDQ $0x01, poly, carry, carry \
	VPXOR      scratch, low, low         \
	VPXOR      carry, low, low

// BITS sets to to the tweaks in from, multiplied by x^n.
#define BITS(n, from, carry, scratch, to) \
	VPSRLQ $(64-n), from, carry \
	VPSLLQ $n, from, to         \
	FOLD(Y14, carry, scratch, to)

// BYTES sets to to the tweaks in from, multiplied by x^(8*n), with n up to 7.
#define BYTES(n, from, carry, to) \
	VPSRLDQ    $(16-n), from, carry     \
	VPSLLDQ    $n, from, to             \
	VPCLMULQDQ $0x00, Y14, carry, carry \
	VPXOR      carry, to, to

// ROUND8 applies the round with the key at an address to 16 blocks.
#define ROUND8(OP, key) \
	VBROADCASTI128 key, Y15 \
	OP Y15, Y0, Y0 \
	OP Y15, Y1, Y1 \
	OP Y15, Y2, Y2 \
	OP Y15, Y3, Y3 \
	OP Y15, Y4, Y4 \
	OP Y15, Y5, Y5 \
	OP Y15, Y6, Y6 \
	OP Y15, Y7, Y7

// LOAD loads two blocks and adds their tweaks and the first round key, Y15.
#define LOAD(offset, data) \
	VPXOR offset(SP), Y15, data \
	VPXOR offset(DI), data, data

// STORE adds the tweaks again, leaves them in tweak, and stores two blocks.
#define STORE(offset, data, tweak) \
	VMOVDQU offset(SP), tweak  \
	VPXOR   tweak, data, data  \
	VMOVDQU data, offset(DI)

// NEXT advances two tweaks by 16 blocks.
#define NEXT(offset, tweak, carry) \
	BYTES(2, tweak, carry, tweak) \
	VMOVDQU tweak, offset(SP)

// func encryptVAES256(b *batch)
TEXT ·encryptVAES256(SB), 0, $384-8
	MOVQ b+0(FP), R8
#define KEYS const_encryptKeys
#define ROUND VAESENC
#define LAST VAESENCLAST
#include "vaes256_amd64.h"
#undef KEYS
#undef ROUND
#undef LAST

// func decryptVAES256(b *batch)
TEXT ·decryptVAES256(SB), 0, $384-8
	MOVQ b+0(FP), R8
#define KEYS const_decryptKeys
#define ROUND VAESDEC
#define LAST VAESDECLAST
#include "vaes256_amd64.h"
