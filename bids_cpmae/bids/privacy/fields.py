"""Which fields of JSON files may be shared: a list of what may stay, since what may not has no end.

Names that the BIDS schema knows were looked through one by one (version `SCHEMA`) and put on one of the lists here;
names that no list has are dropped. A test holds the lists against the schema that is installed.
"""

from __future__ import annotations

SCHEMA = "1.11.2"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# how something was measured: sidecars of images and recordings
ACQUISITION = _names("""
    ACCELChannelCount AcquisitionDuration AcquisitionMode AcquisitionVoxelSize Anaesthesia AnalyticalApproach
    AnatomicalImage AnatomicalLandmarkCoordinateSystem AnatomicalLandmarkCoordinateSystemDescription
    AnatomicalLandmarkCoordinateUnits AnchorCoordinates AnchorElectrode ANGACCELChannelCount
    ArterialSpinLabelingType AssociatedEmptyRoom AttenuationCorrection AttenuationCorrectionMethodReference
    AverageCalibrationError B0FieldIdentifier B0FieldSource B0ShimmingTechnique B1ShimmingTechnique
    BackgroundSuppression BackgroundSuppressionNumberPulses BackgroundSuppressionPulseTime BasedOn BigDelta
    BloodDensity BodyPart BodyPartDetails BodyPartDetailsOntology BolusCutOffDelayTime BolusCutOffFlag
    BolusCutOffTechnique BrainLocation CalibrationCount CalibrationPosition CalibrationType CalibrationUnit
    CapManufacturer CapManufacturersModelName CASLType CellType ChemicalShiftOffset ChemicalShiftReference
    ChunkTransformationMatrix ChunkTransformationMatrixAxis CodeMeaning CodeValue CodingSchemeDesignator
    CodingSchemeVersion CogAtlasID CogPOID CoilCombinationMethod Columns ContinuousHeadLocalization
    ContrastBolusIngredient CoordinateReportStrategy DCOffsetCorrection DecayCorrectionFactor
    DeidentificationMethod DeidentificationMethodCodeSequence DelayAfterTrigger DelayTime Density DetectorType
    DewarPosition DigitizedLandmarks DispersionConstant DispersionCorrected DoseCalibrationFactor DwellTime
    ECGChannelCount EchoAcquisition EchoTime EchoTime1 EchoTime2 ECOGChannelCount EditCondition EditPulse
    EditTarget EEGChannelCount EEGCoordinateSystem EEGCoordinateSystemDescription EEGCoordinateUnits EEGGround
    EEGPlacementScheme EEGReference EffectiveEchoSpacing ElectricalStimulation ElectricalStimulationParameters
    ElectrodeManufacturer ElectrodeManufacturersModelName ElectrodeMaterial ElectrodeType EMGChannelCount
    EMGCoordinateSystem EMGCoordinateSystemDescription EMGCoordinateUnits EMGGround EMGPlacementScheme
    EMGPlacementSchemeDescription EMGReference EncodingTechnique EOGChannelCount EpochLength
    EstimationAlgorithm EstimationReference EyeTrackerDistance EyeTrackingMethod FiducialsCoordinateSystem
    FiducialsCoordinateSystemDescription FiducialsCoordinateUnits FlipAngle FrameAcquisitionDuration
    FrameDuration FrameTimesStart FrequencyOffset Gain GeneticLevel Genetics GradientSetType GYROChannelCount
    Haematocrit HardcopyDeviceSoftwareVersion HardwareFilters HeadCoilCoordinateSystem
    HeadCoilCoordinateSystemDescription HeadCoilCoordinateUnits HeadCoilFrequency HeadStabilization
    iEEGCoordinateProcessingDescription iEEGCoordinateProcessingReference iEEGCoordinateSystem
    iEEGCoordinateSystemDescription iEEGCoordinateUnits iEEGElectrodeGroups iEEGGround iEEGPlacementScheme
    iEEGReference ImageAcquisitionProtocol ImageDecayCorrected ImageDecayCorrectionTime Immersion
    InfusionRadioactivity InfusionSpeed InfusionSpeedUnits InfusionStart InjectedMass InjectedMassPerWeight
    InjectedMassPerWeightUnits InjectedMassUnits InjectedRadioactivity InjectedRadioactivityUnits
    InjectedVolume InjectionEnd InjectionStart Instructions IntendedFor InterelectrodeDistance InversionTime
    JNTANGChannelCount LabelingDistance LabelingDuration LabelingEfficiency LabelingLocationDescription
    LabelingOrientation LabelingPulseAverageB1 LabelingPulseAverageGradient LabelingPulseDuration
    LabelingPulseFlipAngle LabelingPulseInterval LabelingPulseMaximumGradient LabelingSlabThickness
    LATENCYChannelCount LookLocker M0Estimate M0Type MAGNChannelCount MagneticFieldStrength Magnification
    Manual Manufacturer ManufacturersModelName MatrixCoilMode MatrixSize MaximalCalibrationError MaxMovement
    MeasurementToolMetadata MEGChannelCount MEGCoordinateSystem MEGCoordinateSystemDescription
    MEGCoordinateUnits MEGREFChannelCount MetaboliteAvail MetaboliteMethod MetaboliteRecoveryCorrectionApplied
    MISCChannelCount MiscChannelCount MixingTime ModeOfAdministration MolarActivity MolarActivityUnits
    MotionChannelCount MRAcquisitionType MRTransmitCoilSequence MTNumberOfPulses MTOffsetFrequency
    MTPulseBandwidth MTPulseDuration MTPulseShape MTState MultibandAccelerationFactor MultipartID
    NegativeContrast NIRSChannelCount NIRSCoordinateProcessingDescription NIRSCoordinateSystem
    NIRSCoordinateSystemDescription NIRSCoordinateUnits NIRSDetectorOptodeCount NIRSPlacementScheme
    NIRSSourceOptodeCount NonlinearGradientCorrection NumberOfSpectralPoints NumberOfTransients
    NumberOfVolumesDiscardedByScanner NumberOfVolumesDiscardedByUser NumberReceiveCoilActiveElements
    NumberShots NumberTransmitCoilActiveElements NumericalAperture OnsetSource OperatingSystem
    ORNTChannelCount OtherAcquisitionParameters OuterVolumeSuppression ParallelAcquisitionTechnique
    ParallelReductionFactorInPlane ParallelReductionFactorOutOfPlane ParentCoordinateSystem PartialFourier
    PartialFourierDirection PASLType PCASLType PharmaceuticalDoseAmount PharmaceuticalDoseRegimen
    PharmaceuticalDoseTime PharmaceuticalDoseUnits PharmaceuticalName PhaseEncodingDirection PhysioType
    PixelSize PixelSizeUnits PlasmaAvail PlasmaFreeFraction PlasmaFreeFractionMethod POSChannelCount
    PostLabelingDelay PowerLineFrequency Preamplification PromptRate PulseDuration PulseSequenceDetails
    PulseSequencePulses PulseSequenceTiming PulseSequenceType PupilFitMethod Purity RandomRate RawDataFilters
    RawSources ReceiveCoilActiveElements ReceiveCoilName ReceiveGain ReconFilterSize ReconFilterType
    ReconMethodImplementationVersion ReconMethodName ReconMethodParameterLabels ReconMethodParameterUnits
    ReconMethodParameterValues RecordedEye RecordingDuration RecordingType ReferenceSignal RepetitionTime
    RepetitionTimeExcitation RepetitionTimePreparation Resolution ResonantNucleus RotationOrder RotationRule
    SampleCoordinateSystem SampleEmbedding SampleEnvironment SampleExtractionProtocol SampleFixation
    SampleOrigin SamplePrimaryAntibody SampleSecondaryAntibody SampleStaining SamplingFrequency
    SamplingFrequencyEffective ScaleFactor ScanningSequence ScanOptions ScanStart ScatterFraction
    ScreenDistance ScreenOrigin ScreenRefreshRate ScreenResolution ScreenSize SEEGChannelCount SequenceName
    SequenceVariant ShortChannelCount SinglesRate SkinPreparation SkullStripped SliceEncodingDirection
    SliceThickness SliceTiming SmallDelta SoftwareFilters SoftwareName SoftwareRRID SoftwareVersion
    SoftwareVersions Sources SourceType SpatialAxes SpatialReference Species SpecificRadioactivity
    SpecificRadioactivityUnits SpectralWidth SpectrometerFrequency SpoilingGradientDuration
    SpoilingGradientMoment SpoilingRFPhaseIncrement SpoilingState SpoilingType StartTime StimulusPresentation
    TablePosition TaskDescription TaskName TissueDeformationScaling TissueOrigin TotalAcquiredPairs
    TotalReadoutTime TracerMolecularWeight TracerMolecularWeightUnits TracerName TracerRadionuclide
    TracerRadLex TracerSNOMED TrackedPointsCount TrackingSystemName TriggerChannelCount TubingLength
    TubingType Type Units VascularCrushing VascularCrushingVENC VELChannelCount VisionCorrection
    VolumeAffineMatrix VolumeTiming WaterSuppression WaterSuppressionTechnique WholeBloodAvail WithdrawalRate
""")
# what scanners and dcm2niix add on how an image was made. Left out: SAR, transmitter voltage, shim and centre
# frequency, which follow from the body in the scanner or mark the minute, and all text that somebody typed.
BEYOND_BIDS = _names("""
    AcquisitionMatrixPE BaseResolution BodyPartExamined CoilString ConversionSoftware
    ConversionSoftwareVersion EchoNumber EchoTrainLength ImageType InPlanePhaseEncodingDirectionDICOM
    Interpolation2D InterpolationZ Modality NumberOfAverages PatientPosition PercentPhaseFOV PercentSampling
    PhaseEncodingAxis PhaseEncodingPolarityGE PhaseEncodingSteps PhaseOversampling PhaseResolution
    PixelBandwidth PulseSequenceName ReconMatrixPE RefLinesPE SliceOversampling SpacingBetweenSlices
    WaterFatShift
""")
# written by this software
OWN = _names("RandomSeed IdentitySeed Mode WeightsVersion FaceDrawnFrom")
# of a dataset or derivative as a whole; public by intent
DATASET = _names("""
    Acknowledgements Authors BIDSVersion Code CodeURL Container ContainerTag ContainerType ContainerURI
    Curators Database Dataset DatasetDOI DatasetLinks DatasetType DerivedFrom Description Descriptors DOI
    EthicsApprovals Funding GeneratedBy HEDVersion HowToAcknowledge Keywords LevelType License Name
    ReferencesAndLinks RRID SampleSize SourceDatasets URL Version
""")
# of a column, in the JSON file beside a table
COLUMN = _names("""
    Delimiter Derivative Description Format HED Levels LongName Maximum Minimum MissingValues TermURL Units
""")
# known to BIDS and never shared, with the reason
WITHHELD = {
    **dict.fromkeys(_names("""
        InstitutionName InstitutionAddress InstitutionalDepartmentName StationName
        SampleExtractionInstitution
    """), "a hospital, department or laboratory"),
    **dict.fromkeys(_names("DeviceSerialNumber"), "one machine"),
    **dict.fromkeys(_names("""
        ScanDate TimeZero MolarActivityMeasTime SpecificRadioactivityMeasTime
    """), "a date or a time of day"),
    **dict.fromkeys(_names("SubjectArtefactDescription PhotoDescription"), "free text about one person"),
    **dict.fromkeys(_names("""
        AnatomicalLandmarkCoordinates DigitizedHeadPoints DigitizedHeadPointsCoordinateSystem
        DigitizedHeadPointsCoordinateSystemDescription DigitizedHeadPointsCoordinateUnits
        FiducialsCoordinates FiducialsDescription HeadCircumference HeadCoilCoordinates
    """), "the shape of the original head"),
}
# required by BIDS, so set to a value that says nothing; other times of a PET recording count from it
FIXED = {"TimeZero": "00:00:00"}
# the reference to other files of the same dataset, which a derivative does not hold
REFERENCES = _names("""
    AnatomicalImage AssociatedEmptyRoom BasedOn IntendedFor RawSources ReferenceSignal Sources SpatialReference
""")

SHAREABLE = ACQUISITION | BEYOND_BIDS
