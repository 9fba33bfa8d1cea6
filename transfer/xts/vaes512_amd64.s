#include "go_asm.h"
#include "textflag.h"

// XTS-AES with VAES and AVX-512: a zmm register holds four blocks, and 32 of
// these registers hold all round keys, eight of data and eight of tweaks.

// Shift counts for the tweaks of blocks 0-3 and 4-7. The tweak of block n is
// the sector's tweak times x^n, so its two qwords are shifted left by n. The
// bits shifted out of them are their top n bits, shifted right by 64-n.
DATA left512<>+0(SB)/8, $0
DATA left512<>+8(SB)/8, $0
DATA left512<>+16(SB)/8, $1
DATA left512<>+24(SB)/8, $1
DATA left512<>+32(SB)/8, $2
DATA left512<>+40(SB)/8, $2
DATA left512<>+48(SB)/8, $3
DATA left512<>+56(SB)/8, $3
DATA left512<>+64(SB)/8, $4
DATA left512<>+72(SB)/8, $4
DATA left512<>+80(SB)/8, $5
DATA left512<>+88(SB)/8, $5
DATA left512<>+96(SB)/8, $6
DATA left512<>+104(SB)/8, $6
DATA left512<>+112(SB)/8, $7
DATA left512<>+120(SB)/8, $7
GLOBL left512<>(SB), RODATA|NOPTR, $128

DATA right512<>+0(SB)/8, $64
DATA right512<>+8(SB)/8, $64
DATA right512<>+16(SB)/8, $63
DATA right512<>+24(SB)/8, $63
DATA right512<>+32(SB)/8, $62
DATA right512<>+40(SB)/8, $62
DATA right512<>+48(SB)/8, $61
DATA right512<>+56(SB)/8, $61
DATA right512<>+64(SB)/8, $60
DATA right512<>+72(SB)/8, $60
DATA right512<>+80(SB)/8, $59
DATA right512<>+88(SB)/8, $59
DATA right512<>+96(SB)/8, $58
DATA right512<>+104(SB)/8, $58
DATA right512<>+112(SB)/8, $57
DATA right512<>+120(SB)/8, $57
GLOBL right512<>(SB), RODATA|NOPTR, $128

// FOLD completes a multiplication by a power of x. low has the qwords shifted
// left, and carry the bits that were shifted out of them. The carry of the
// lower qword goes into the upper qword. The carry of the upper qword is
// multiplied by x^128 = x^7+x^2+x+1, which is in both qwords of Z15, and goes
// into the lower qword. FOLD uses Z23.
#define FOLD(carry, low) \
	VPSLLDQ    $8, carry, Z23            \
	VPCLMULQDQ $0x01, Z15, carry, carry  \
	VPTERNLOGQ $0x96, carry, Z23, low

// BYTES sets to to the tweaks in from, multiplied by x^(8*n), with n up to 7.
// to may be from.
#define BYTES(n, from, carry, to) \
	VPSRLDQ    $(16-n), from, carry      \
	VPSLLDQ    $n, from, to              \
	VPCLMULQDQ $0x00, Z15, carry, carry  \
	VPXORQ     carry, to, to

// ROUND8 applies one round with a key to 32 blocks.
#define ROUND8(OP, key) \
	OP key, Z16, Z16 \
	OP key, Z17, Z17 \
	OP key, Z18, Z18 \
	OP key, Z19, Z19 \
	OP key, Z20, Z20 \
	OP key, Z21, Z21 \
	OP key, Z22, Z22 \
	OP key, Z23, Z23

// LOAD loads four blocks and adds their tweaks and the first round key.
#define LOAD(offset, tweak, data) \
	VMOVDQU64  offset(DI), data      \
	VPTERNLOGQ $0x96, tweak, Z0, data

// STORE adds the tweaks again and stores four blocks.
#define STORE(offset, tweak, data) \
	VPXORQ    tweak, data, data \
	VMOVDQU64 data, offset(DI)

// func encryptVAES512(b *batch)
TEXT ·encryptVAES512(SB), 0, $128-8
	MOVQ b+0(FP), R8
#define KEYS const_encryptKeys
#define ROUND VAESENC
#define LAST VAESENCLAST
#include "vaes512_amd64.h"
#undef KEYS
#undef ROUND
#undef LAST

// func decryptVAES512(b *batch)
TEXT ·decryptVAES512(SB), 0, $128-8
	MOVQ b+0(FP), R8
#define KEYS const_decryptKeys
#define ROUND VAESDEC
#define LAST VAESDECLAST
#include "vaes512_amd64.h"
