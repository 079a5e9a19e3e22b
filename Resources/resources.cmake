# What is installed with the module, from the top of the repository (the screenshots are not).
set(SAMFineTune_RESOURCES
  Resources/Icons/SAMFineTune.png
  Resources/Icons/SAMFineTuneHead.png
  Resources/UI/ApplySection.ui
  Resources/UI/ExamplesSection.ui
  Resources/UI/FineTuneSection.ui
  Resources/UI/ModelSection.ui
  Resources/UI/ModelsSection.ui
  Resources/UI/PackagesSection.ui
  Resources/requirements.txt
  )
