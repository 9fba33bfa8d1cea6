// Package transfer provides the transforms between a device's sectors and its
// backing file: xor, and the encryptions that dm-crypt calls aes-xts-plain64 and aes-xts-plain.
// Without a transform a device has no Transfer, and its requests call nothing.
//
// dm-crypt can open a disk that was written through a Transfer, and a Transfer
// can read a disk of dm-crypt. docs/transfers.md describes the format bit by
// bit. Keys are kept in a [Secret].
//
// # A new transform
//
// A new transform is a type in a file of its own, a name in [Names], and a case
// in [New]. The command, the API and the state file take every name of Names.
// Two places name the transforms of device mapper: the line of list --dm-table
// (dmTable in internal/report) and the ciphers of a table (transfer/table).
package transfer
