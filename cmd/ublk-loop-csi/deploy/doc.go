// Package deploy has the Helm chart of the driver in chart, and in ublk-loop-csi.yaml what
// the chart makes of its default values.
package deploy
