// Package transfer has the transforms between a device's sectors and what is
// in its backing file: xor, and the encryption that dm-crypt calls
// aes-xts-plain64. Without a transform there is no Transfer at all, and no call
// on the way of a request.
//
// A disk written through a Transfer opens in dm-crypt, and the other way round;
// docs/transfers.md says to the bit how. Keys live in a [Secret].
package transfer
