// Package backing is the file or disk behind a device: how it is found, opened, locked
// and identified, which part of it is the device, and what limits it gives the device.
//
// Nothing here knows of a device's life or of its requests. A name is looked up once
// (OpenPath); all that follows works on the object that was found.
package backing
