// Package backing is the file or disk behind a device. It finds, opens, locks and
// identifies the file, decides which part of it is the device, and which limits it gives
// the device.
//
// The package knows nothing of a device's life or of its requests. It looks a name up
// only once (OpenPath). Everything else works on the object that was found.
package backing
