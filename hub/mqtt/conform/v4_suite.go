package conform

import "slices"

// suite311 is MQTT 3.1.1, the OASIS standard of 29 October 2014.
func suite311() Suite {
	return Suite{
		Name: "3.1.1", Version: v311, Statements: statements311, Others: others311(),
		Rows: slices.Concat(
			textRows311(), connectRows311(), cleanRows311(), willRows311(), idRows311(), connackRows311(),
			publishRows311(), retainRows311(), subscribeRows311(), unsubscribeRows311(), disconnectRows311(),
			sessionRows311(), deliveryRows311(), orderRows311(), topicRows311(), transportRows311(),
		),
	}
}
