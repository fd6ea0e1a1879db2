"""From a file to head space and back: NIfTI, registration, masks, composition, certificate. No nipype in here."""
