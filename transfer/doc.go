// Package transfer provides the transforms between a device's sectors and its
// backing file: xor, and the encryption that dm-crypt calls aes-xts-plain64.
// Without a transform a device has no Transfer, and its requests call nothing.
//
// dm-crypt can open a disk that was written through a Transfer, and a Transfer
// can read a disk of dm-crypt. docs/transfers.md describes the format bit by
// bit. Keys are kept in a [Secret].
package transfer
