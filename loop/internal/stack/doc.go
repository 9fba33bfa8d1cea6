// Package stack serves a stack of device-mapper tables: it opens the files and disks below
// it, combines their limits, and answers the requests of the device.
//
// A read or write of one place is one operation, as for a device of one file. Any other
// request becomes parts (package mapping), of which several are in flight at once. Each part
// is retried by itself. The answer has the first error, and all parts are carried out also
// after an error, as in the kernel.
package stack
