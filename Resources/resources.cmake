# What is installed with the module, from the top of the repository (the screenshots are not).
set(SAMFineTune_RESOURCES
  Resources/Icons/SAMFineTune.png
  Resources/Icons/SAMFineTuneHead.png
  Resources/SAMFineTuneRequirements.txt
  Resources/UI/SAMFineTuneApplySection.ui
  Resources/UI/SAMFineTuneCorrectSection.ui
  Resources/UI/SAMFineTuneExamplesSection.ui
  Resources/UI/SAMFineTuneFineTuneSection.ui
  Resources/UI/SAMFineTuneModelSection.ui
  Resources/UI/SAMFineTuneModelsSection.ui
  Resources/UI/SAMFineTunePackagesSection.ui
  )
