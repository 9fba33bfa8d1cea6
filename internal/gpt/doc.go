// Package gpt reads the GUID partition table of an image or disk (UEFI 2.10, 5.3). The bytes
// can be anyone's: both checksums are compared, memory and time have a limit, and partitions that
// overlap are refused. Nothing is written. Only the first copy of the table counts.
package gpt
