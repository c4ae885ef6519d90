package conform

import "slices"

// suite311 is MQTT 3.1.1, the OASIS standard of 29 October 2014.
func suite311() Suite {
	return Suite{
		Name: "3.1.1", Version: v311,
		Rows: slices.Concat(textRows311(), connectRows311(), idRows311(), connackRows311(), publishRows311(), unsubscribeRows311()),
	}
}
